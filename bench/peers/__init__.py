"""What users would pick instead, driven through its own client, each in processes of its own."""
