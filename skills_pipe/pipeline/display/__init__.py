"""What a person sees of plans and runs: trees and tables on a terminal, plain lines elsewhere.

A dry run needs little of it, so each part is imported from its own file.
"""
