"""What is published: contracts, operations, schemas and the OpenAPI document."""
