"""What an evaluation looks like: one HTML file, and tables in Markdown, LaTeX and CSV."""
