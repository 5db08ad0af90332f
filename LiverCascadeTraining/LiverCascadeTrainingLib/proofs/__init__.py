"""What a cascade is shown to be worth: on real CTs changed on purpose, and on a fixed set of synthetic scans.

``perturbations`` says how scans are changed, ``robustness`` measures what that does, ``held_out_set`` measures lesions
on synthetic scans, ``failures`` draws the worst cases (``pictures``). Everything is kept case by case (``records``): a
stopped proof goes on where it was. What comes out ends up in the manifest and the card of the refine model.
"""
