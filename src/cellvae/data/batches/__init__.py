"""Batches and blocks of cells: split, order, labelled cells."""
