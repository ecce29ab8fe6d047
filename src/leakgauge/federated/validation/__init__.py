"""Does an observation follow from the true batch and the declared protocol? If not, what is the likely cause?"""
