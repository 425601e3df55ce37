"""The projection: reads Kafka's topics into the status store, and knows how far behind it is."""
