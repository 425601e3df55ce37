"""What the tests stand on: brokers to talk to, topics to clear away."""
