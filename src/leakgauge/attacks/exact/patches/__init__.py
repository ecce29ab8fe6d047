"""Pictures from networks that cut them into patches and add a learnable position embedding."""
