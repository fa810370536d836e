"""Measurements that need the model. Probes write numbers; guards judge them."""
