"""What users may count on, as sentences that hold on Kafka and in the harness alike."""
