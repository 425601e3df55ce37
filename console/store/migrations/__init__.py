"""The store's schema, step by step (Alembic); run whenever a store is opened."""
