"""LightningDataModules of images."""
