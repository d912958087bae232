"""The published API: contracts, operations, schemas and the OpenAPI document."""
