"""Reading and writing of AnnData files."""
