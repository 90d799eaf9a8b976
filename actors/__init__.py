"""What runs where the work is: environments, rollouts, evaluations, and the pools of workers that do them."""
