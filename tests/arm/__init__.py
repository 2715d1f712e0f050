"""Tests on an emulated processor."""
