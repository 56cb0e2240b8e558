"""A person's or a model's word on mined candidates: in a page, in a terminal, and what it comes to."""
