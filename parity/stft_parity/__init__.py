"""Does an STFT do what ``torch.stft`` and ``torch.istft`` do, case by case, in every respect?"""
