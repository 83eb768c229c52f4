"""Poses of whole archives as Parquet, resumable, in this process or on Ray."""
