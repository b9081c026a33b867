"""What several tests need: photos, servers, clusters, and the commands under test in processes of their own."""
