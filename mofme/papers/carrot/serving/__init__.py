"""An OpenAI-compatible endpoint that sends each request to the cheapest model expected to answer it well."""
