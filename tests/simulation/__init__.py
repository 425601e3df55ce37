"""A deterministic simulation of workers on Kafka: no I/O, no threads, one real Protocol a worker.

    schedule   bytes from a seed; each step is four of them; run, replay, shrink (the commands)
    profiles   what a step means, and how often each action comes
    world      the topics, the workers, and what a step does to them
    worker     one process: the poll, commit and restore threads, as generators
    committer  its transactional producer, and how each call of it may fail
    store      its local copies of the state
    client     its consumer client: positions, pauses, what it knows of its group
    groups     the group coordinator, classic and KIP-848
    broker     logs with transactions, and the transaction coordinator
    message    what lies on `tasks`
    oracle     what must hold after every step and at the end
    bugs       planted mistakes, each of which the oracle must see

Not modelled: the deletion of read tasks, brokers that lose acknowledged records, and requests of a
producer that overtake each other (it is idempotent). Time does not pass: a session, a transaction
or a patience ends when a step says so.
"""
