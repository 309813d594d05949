"""Pages, figures and annotated videos made from results."""
