"""What a person's past conversations say of them: how far two sessions are apart, and in which order they are told."""
