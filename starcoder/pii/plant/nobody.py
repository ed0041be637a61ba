"""Names that are nobody's."""

from starcoder.pii.plant.sides import listed

TERMS = listed("""
    Dijkstra|Gaussian|Levenshtein|Euler|Fourier|Newton|Bayes|Markov|Hamming|Jaccard|Laplace|Kalman|Bessel|Chebyshev
    |Cholesky|Hermite|Hilbert|Huffman|Jacobi|Lagrange|Monte Carlo|Poisson|Runge-Kutta|Bernoulli|Voronoi|Wilcoxon|Adam
    |Householder|Nelder-Mead|Floyd-Warshall|Knuth-Morris-Pratt|Boyer-Moore|Perlin|Mandelbrot|Unicode|Frobenius|Cauchy
    |Nesterov|Xavier|Kaiming|Sobel|Canny|Gabor|Haar|Wiener|Zipf|Pareto|Galois|Turing|Ackermann|Fibonacci|Catalan|Ada
    |Julia|Pascal|Haskell|Erlang|Delaunay|Simpson|Strassen|Rabin-Karp|Bellman-Ford|Gauss-Seidel|Savitzky-Golay|Bloom
    |Merkle|Cantor|Riemann|Lebesgue|Sobolev|Legendre|Weibull|Dirichlet|Wishart|Mahalanobis|Pearson|Spearman|Kendall
    |Gibbs|Metropolis-Hastings|Black-Scholes|Navier-Stokes|Hough|Otsu|Lanczos|Arnoldi|Krylov|Givens|Horner|Karatsuba
    |Reed-Solomon|Viterbi|Baum-Welch|Diffie-Hellman|Miller-Rabin|Fisher-Yates|Morton|Bresenham|Catmull-Rom|Bezier|Phong
    |Lambert|Gouraud|Kolmogorov|Shannon|Lempel-Ziv|Burrows-Wheeler|Aho-Corasick|Trie|Levenberg-Marquardt|Wolfe|Armijo
    |Hessian|Jordan|Schur|Hadamard|Kronecker|Toeplitz|Vandermonde|Butterworth|Hann|Blackman|Mersenne Twister|Ziggurat
    |Box-Muller|Glorot|Polyak|Hopfield|Boltzmann|Elo|Gini|Shapley|Nash|Luhn|Soundex|Porter|Snowball|Raft|Paxos
""")
"""Algorithms, units, languages and distributions that carry somebody's name."""

COMPANIES = listed("""
    Red Hat|Visual Studio|Google|Microsoft|Facebook|Apple|IBM|Oracle|Sun Microsystems|Intel|NVIDIA|Mozilla|Canonical
    |JetBrains|Hugging Face|Amazon|Samsung|Qualcomm|Adobe|The Apache Software Foundation|Free Software Foundation
    |Google LLC|Django Software Foundation|Python Software Foundation|Internet Explorer|Android Studio|Linux Foundation
    |Ruby on Rails|Mac OS X|Windows Server|Spring Boot|Apache Kafka|Jupyter|NumPy|PyTorch|TensorFlow|OpenSSL|Debian
    |Silicon Graphics|Hewlett Packard|Wells Fargo|Morgan Stanley|Johnson & Johnson|Ben & Jerry's|Dr. Pepper|Travis CI
    |Jenkins|Apache Cassandra|Jupyter Notebook|Mercedes Benz|Max Planck Institute|University of California
    |Lawrence Livermore National Laboratory|Cisco Systems|Texas Instruments|Advanced Micro Devices|ARM Limited|Broadcom
    |Xilinx|Analog Devices|STMicroelectronics|Nordic Semiconductor|Espressif Systems|Siemens AG|Bosch|Philips|Ericsson
    |Nokia Corporation|Motorola|Sony|Panasonic|Toshiba|Fujitsu|Hitachi|Huawei|Alibaba Group|Tencent|Baidu|Netflix
    |Dropbox|Twitter, Inc.|LinkedIn|Uber Technologies|Airbnb|Spotify|Stripe|Shopify|Salesforce|VMware|Pivotal
    |Docker Inc.|HashiCorp|Elasticsearch B.V.|MongoDB, Inc.|Confluent|Databricks|Snowflake|Cloudflare|DigitalOcean
    |Rackspace|Heroku|GitHub, Inc.|GitLab B.V.|Atlassian|Yahoo! Inc.|America Online|Netscape Communications|Novell
    |Borland|Digital Equipment Corporation|Bell Labs|AT&T|Xerox Corporation|Sandia Corporation
    |Argonne National Laboratory|Los Alamos National Security|European Organization for Nuclear Research
    |National Institute of Standards|Massachusetts Institute of Technology|Stanford University
    |Carnegie Mellon University|University of Cambridge|University of Illinois|ETH Zurich
    |Technische Universität München|Inria|Fraunhofer Institut|Regents of the University|Eclipse Foundation
    |The FreeBSD Project|The NetBSD Foundation|OpenBSD|GNOME Foundation|KDE e.V.|The Qt Company|The Document Foundation
    |Wikimedia Foundation|Internet Systems Consortium|World Wide Web Consortium|The Open Group|Khronos Group
    |Unicode, Inc.|Bitcoin Core developers|Ethereum Foundation|Anaconda, Inc.|Enthought|Continuum Analytics
    |SciPy Developers|Matplotlib Development Team|The Rust Project Developers|The Go Authors|The Chromium Authors
    |Zend Technologies|Symfony|Laravel|WordPress|Drupal|Joomla|Node Package Manager|Visual Basic|Power Shell
    |Active Directory|Team Foundation|Google Chrome|Google Maps|Google Cloud|Mozilla Firefox|Amazon Web Services
    |Azure DevOps|Raspberry Pi|Arduino|Star Wars|Lord of the Rings|New York|San Francisco|Los Angeles|Hong Kong
    |Saint Petersburg|Rio de Janeiro|Times New Roman|Comic Sans|Open Sans|Trebuchet MS|Courier New|Stack Overflow
    |Hacker News|Unreal Engine|Unity Technologies|Blender Foundation|Game Boy|Merge Sort|Quick Start|Hello World
    |Getting Started|Table of Contents
""")
"""Companies, products, institutes and places."""
