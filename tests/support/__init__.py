"""What several test modules use: clients, processes, services and load."""
