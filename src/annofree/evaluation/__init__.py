"""How good the files are: AP and AR of instances, touching pairs told apart, and the tables that show them."""
