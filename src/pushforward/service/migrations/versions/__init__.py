"""One file a migration; `Store.migrate` runs those that a store lacks."""
