"""What a random player and a human tester score in Atari games; see NOTICE."""
