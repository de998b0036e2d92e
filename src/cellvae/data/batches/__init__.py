"""Batches and step blocks: selection and split of cells, order of an epoch, labelled cells."""
