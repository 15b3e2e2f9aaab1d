"""Does an STFT do what ``torch.stft`` and ``torch.istft`` do? Case by case, and in every respect."""
