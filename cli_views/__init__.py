"""What people see: rich tables on stdout, progress bars on stderr. One module a topic."""
