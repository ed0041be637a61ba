"""The corpus room (paper §3, §5.1): from repositories to parquet shards of permissively licensed documents."""
