"""The wire: Avro schemas, the records they carry, the codec, the states of a task."""
