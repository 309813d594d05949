"""From a folder of videos to a trained network and a report: `octvideo train FOLDER`,
`octvideo.fit`.

A `Recipe` holds what a person asked for. It becomes settings (`config`), to which the machine, the
videos and the weights within reach add what was not said; from there on a run is what `octvideo
train --cfg` does.
"""
