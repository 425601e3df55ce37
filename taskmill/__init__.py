"""taskmill: a task platform on Apache Kafka."""
