"""Helpers that several test modules share: clients, processes, services and load."""
