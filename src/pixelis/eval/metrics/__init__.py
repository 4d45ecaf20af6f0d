"""What an evaluation measures: answers, what tools returned, how answers were obtained, and what confidence is worth."""
