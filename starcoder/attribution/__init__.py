"""Attribution (paper §8): from a piece of code back to the files, repositories and licences that it stands in."""
