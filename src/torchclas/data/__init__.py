"""From image files, folders and URLs to batches: sources → decode → preprocess → loader, and labelled data sets."""
