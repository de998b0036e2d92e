"""Questions whose cells are shared between processes, or between devices of one process."""
