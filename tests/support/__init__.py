"""Helpers of several tests: photos, servers, clusters, and the commands under test in processes of their own."""
