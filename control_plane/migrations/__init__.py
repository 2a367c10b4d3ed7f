"""Steps from every earlier form of the database to this one, run at start."""
