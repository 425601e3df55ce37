"""The floor: errors, clock, configuration, Kafka clients, topics, stores. Imports no other room."""
