"""Names that are nobody's."""

from starcoder.pii.plant.sides import listed

TERMS = listed("""
    Dijkstra|Gaussian|Levenshtein|Euler|Fourier|Newton|Bayes|Markov|Hamming|Jaccard|Laplace|Kalman|Bessel|Chebyshev
    |Cholesky|Hermite|Hilbert|Huffman|Jacobi|Lagrange|Monte Carlo|Poisson|Runge-Kutta|Bernoulli|Voronoi|Wilcoxon|Adam
    |Householder|Nelder-Mead|Floyd-Warshall|Knuth-Morris-Pratt|Boyer-Moore|Perlin|Mandelbrot|Unicode|Frobenius|Cauchy
    |Nesterov|Xavier|Kaiming|Sobel|Canny|Gabor|Haar|Wiener|Zipf|Pareto|Galois|Turing|Ackermann|Fibonacci|Catalan|Ada
    |Julia|Pascal|Haskell|Erlang|Delaunay|Simpson|Strassen|Rabin-Karp|Bellman-Ford|Gauss-Seidel|Savitzky-Golay|Bloom
    |Merkle|Cantor
""")
"""Algorithms, units, languages and distributions that carry somebody's name."""

COMPANIES = listed("""
    Red Hat|Visual Studio|Google|Microsoft|Facebook|Apple|IBM|Oracle|Sun Microsystems|Intel|NVIDIA|Mozilla|Canonical
    |JetBrains|Hugging Face|Amazon|Samsung|Qualcomm|Adobe|The Apache Software Foundation|Free Software Foundation
    |Google LLC|Django Software Foundation|Python Software Foundation|Internet Explorer|Android Studio|Linux Foundation
    |Ruby on Rails|Mac OS X|Windows Server|Spring Boot|Apache Kafka|Jupyter|NumPy|PyTorch|TensorFlow|OpenSSL|Debian
    |Silicon Graphics|Hewlett Packard|Wells Fargo|Morgan Stanley|Johnson & Johnson|Ben & Jerry's|Dr. Pepper|Travis CI
    |Jenkins|Apache Cassandra|Jupyter Notebook|Mercedes Benz|Max Planck Institute|University of California
    |Lawrence Livermore National Laboratory
""")
"""Companies, products and institutes."""
