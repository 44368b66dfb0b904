"""The cluster router: OpenAI API in, one replica out."""
