"""Label Studio asks this server: its protocol of machine learning backends."""
