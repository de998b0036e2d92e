"""Models whose cells hold a posterior in place of counts."""
