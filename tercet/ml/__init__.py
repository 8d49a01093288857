"""Machine learning on secret-shared tables: schemas, ingestion, joins and models, written as plans."""
