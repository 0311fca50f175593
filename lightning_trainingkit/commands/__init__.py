"""The commands of ``trainingkit``, a file each: its arguments, and what it does."""
