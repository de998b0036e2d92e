"""Counts on disk: readers of cells, and the column and the rows that are made of them."""
