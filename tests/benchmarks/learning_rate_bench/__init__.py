"""Small trainings whose best learning rate is known from a grid, to judge methods that choose a rate."""
