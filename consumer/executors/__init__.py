"""Where handlers run: an event loop, threads, processes."""
